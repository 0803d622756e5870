package main

import (
	"fmt"
	"math"

	"seqrec"
)

// compare says how an answer differs from the file's, or "". An answer may have only some outputs.
func (g golden) compare(got []seqrec.Row) string {
	if len(got) != len(g.want) {
		return fmt.Sprintf("%d rows, not %d", len(got), len(g.want))
	}
	for i, row := range got {
		for name := range row {
			if difference := g.differs(name, row, g.want[i]); difference != "" {
				return fmt.Sprintf("row %d, %s: %s", i, name, difference)
			}
		}
	}
	return ""
}

func (g golden) differs(name string, got, want seqrec.Row) string {
	switch values := got[name].(type) {
	case seqrec.Strings:
		scores, _ := want["scores"].(seqrec.Floats)
		return g.differentIDs(values, want[name].(seqrec.Strings), scores)
	case seqrec.Floats:
		return g.differentNumbers(values, want[name].(seqrec.Floats))
	case seqrec.Ints:
		if fmt.Sprint(values) != fmt.Sprint(want[name]) {
			return fmt.Sprintf("%v, not %v", values, want[name])
		}
	}
	return ""
}

func (g golden) differentNumbers(got, want seqrec.Floats) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d numbers, not %d", len(got), len(want))
	}
	for i, number := range got {
		if !g.near(number, want[i], 1) {
			return fmt.Sprintf("number %d is %v, not %v", i, number, want[i])
		}
	}
	return ""
}

// differentIDs lets an id stand elsewhere than in the file if the scores of both places are a
// tie: either may be off by the tolerance. An id that the file has not has to tie with its last.
func (g golden) differentIDs(got, want seqrec.Strings, scores seqrec.Floats) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d ids, not %d", len(got), len(want))
	}
	places := make(map[string]int, len(want))
	for i, id := range want {
		places[id] = i
	}
	for i, id := range got {
		place, there := places[id]
		if !there {
			place = len(want) - 1
		}
		if id != want[i] && (id == "" || !g.near(scores[place], scores[i], 2)) {
			return fmt.Sprintf("id %d is %q, not %q", i, id, want[i])
		}
	}
	return ""
}

func (g golden) near(got, want float32, times float64) bool {
	tolerance := times * (g.atol + g.rtol*math.Abs(float64(want)))
	return math.Abs(float64(got)-float64(want)) <= tolerance
}
