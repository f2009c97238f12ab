"""FaceWarehouse: readers and writers of its files, in mm and px.

    FaceWarehouse_Data_0/Tester_1 .. 150/Blendshape/shape.bs, shape_0 .. 46.obj
                                        /TrainingPose/pose_0 .. 19.obj, .png, .land, .poses

The files count in decimetres; 1 of them is 100 mm here. Their axes are the model frame's already: +x image right,
+y up, +z towards the camera. The pose meshes do not stand in the camera's frame: their pose has to be solved.
"""
