"""What every long run needs: checkpoints, output folders, processes, progress, tracking, provenance."""
