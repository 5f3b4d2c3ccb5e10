"""Find the best way to finetune HSF's hippocampal subfield segmentation."""

__version__ = "0.1.0"
