"""Proof of what keyop promises: power cuts, failing disks, kills, flipped bits, and models of what no test can reach."""
