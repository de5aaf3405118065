"""The live view in a browser: ``keyop dashboard``. Read-only: there is nothing in here that changes anything."""
