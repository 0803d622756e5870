package seqrec

import (
	"fmt"
	"math"
	"unicode/utf8"
)

// Row has values by the name of an input or output. What a row of a call leaves out is unknown.
type Row map[string]Value

// Value is what a row has for one input or output: Strings, Floats or Ints. A single value is a
// list of one.
type Value interface {
	datatype() string
	size() int
	slice(from, to int) Value
}

type (
	Strings []string  // BYTES: UTF-8
	Floats  []float32 // FP32
	Ints    []int32   // INT32
)

func (Strings) datatype() string { return "BYTES" }
func (Floats) datatype() string  { return "FP32" }
func (Ints) datatype() string    { return "INT32" }

func (v Strings) size() int { return len(v) }
func (v Floats) size() int  { return len(v) }
func (v Ints) size() int    { return len(v) }

func (v Strings) slice(from, to int) Value { return v[from:to] }
func (v Floats) slice(from, to int) Value  { return v[from:to] }
func (v Ints) slice(from, to int) Value    { return v[from:to] }

// size is how many values a row has for an input.
func (r Row) size(name string) int {
	if value := r[name]; value != nil {
		return value.size()
	}
	return 0
}

// laidOut is a row's list for an input that follows a history, as it goes over the wire: the value
// at place Size - j belongs to the history's j-th last event, and is NaN if there is none.
func (r Row) laidOut(tensor Tensor) Floats {
	values, _ := r[tensor.Name].(Floats)
	history, _ := r[tensor.AlignedWith].(Strings)
	laid := make(Floats, tensor.Size)
	place := tensor.Size
	for i := len(history) - 1; i >= 0 && place > 0; i-- {
		// An empty id is padding. The server cuts an id at NUL, which may leave an empty one.
		if history[i] != "" && history[i][0] != 0 {
			place--
			laid[place] = unknown
			if i < len(values) {
				laid[place] = values[i]
			}
		}
	}
	for i := range laid[:place] {
		laid[i] = unknown
	}
	return laid
}

var unknown = float32(math.NaN())

// check finds what the server would refuse, or what would not arrive as it was meant.
func (c *Contract) check(row Row) error {
	for name, value := range row {
		tensor, known := find(c.Inputs, name)
		if !known {
			return fmt.Errorf("no input %q; the model takes %q", name, names(c.Inputs))
		}
		if value == nil {
			continue
		}
		if value.datatype() != tensor.Datatype {
			return fmt.Errorf("%q: takes %s, found %s", name, tensor.Datatype, value.datatype())
		}
		anyLength := tensor.Size == Any || tensor.AlignedWith != ""
		if size := value.size(); !anyLength && size != 0 && size != tensor.Size {
			return fmt.Errorf("%q: takes %d values or none, found %d", name, tensor.Size, size)
		}
		texts, _ := value.(Strings)
		for _, text := range texts {
			if !utf8.ValidString(text) {
				return fmt.Errorf("%q: takes UTF-8, found %q", name, text)
			}
		}
	}
	return nil
}
