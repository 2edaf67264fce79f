"""What run.py is made of. Nothing here imports a loop: loops live in the servers' processes."""
