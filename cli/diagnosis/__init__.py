"""Why a pod got no secrets, and whether the installation works, as far as the API server shows it."""
