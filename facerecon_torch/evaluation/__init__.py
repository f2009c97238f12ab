"""Evaluation: errors per image, and the tables, figures and the page that show them."""
