"""report.html, the page about a build."""
