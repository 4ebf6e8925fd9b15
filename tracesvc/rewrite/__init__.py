"""Traces made of traces: a part of one, several as one, one without what must not be known, one of Go's."""

from tracesvc.rewrite.anonymize import anonymize
from tracesvc.rewrite.cut import cut
from tracesvc.rewrite.go_read import import_go
from tracesvc.rewrite.merge import merge

__all__ = ["anonymize", "cut", "import_go", "merge"]
