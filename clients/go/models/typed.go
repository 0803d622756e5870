// Package models has a client for each model of the repository that it was written from, with the
// row that the model takes as a struct: an input that the model has not does not compile.
package models

import "seqrec"

// Float32 is for the fields that are pointers, which are unknown if nil: Float32(31).
func Float32(value float32) *float32 {
	return &value
}

func optional(value *float32) seqrec.Floats {
	if value == nil {
		return nil
	}
	return seqrec.Floats{*value}
}

func untyped[R interface{ row() seqrec.Row }](rows []R) []seqrec.Row {
	made := make([]seqrec.Row, len(rows))
	for i, row := range rows {
		made[i] = row.row()
	}
	return made
}

func narrowing[F interface{ filters() seqrec.Filters }](filters []F) []seqrec.Filters {
	made := make([]seqrec.Filters, len(filters))
	for i, each := range filters {
		made[i] = each.filters()
	}
	return made
}

// only is the answer to a call of one row.
func only[T any](answers []T, err error) (answer T, _ error) {
	if err != nil {
		return answer, err
	}
	return answers[0], nil
}
