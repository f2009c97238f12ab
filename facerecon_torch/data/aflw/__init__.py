"""300W-LP and AFLW2000-3D: photographs of 450 x 450 px beside a .mat with landmarks, pose and BFM 2009 weights."""
