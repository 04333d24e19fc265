"""`ccai` and the places it runs: papermill, SageMaker, benches, forms."""
