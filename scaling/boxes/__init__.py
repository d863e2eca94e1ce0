"""Oriented boxes: conventions, overlap, suppression, assignment, coders and RoIAlign."""
