"""Pictures that let a person judge a reconstruction."""
