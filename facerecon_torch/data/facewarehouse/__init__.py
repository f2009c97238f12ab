"""FaceWarehouse: its files read and written in mm and px.

    FaceWarehouse_Data_0/Tester_1 .. 150/Blendshape/shape.bs, shape_0 .. 46.obj
                                        /TrainingPose/pose_0 .. 19.obj, .png, .land, .poses

The unit of the files is the decimetre. Their axes are those of the model frame: +x image right, +y up, +z towards the
camera. The meshes of the poses are not in the camera's frame: their pose is fitted (`photo_pose`).
"""
