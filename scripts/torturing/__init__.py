"""Proof of what keyop promises: power cuts, failing disks, kills, flipped bits, and models of the rest."""
