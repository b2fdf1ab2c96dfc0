"""Cameras, triangle meshes, distances to them, isosurfaces of fields, and images of meshes."""
