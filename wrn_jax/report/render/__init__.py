"""The document as blocks, and as Markdown, HTML and PNG; knows nothing of runs."""
