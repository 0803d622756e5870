package seqrec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"seqrec/inference"
)

// candidates is the input that an output of any length runs parallel to.
const candidates = "candidate_ids"

// encode makes one request of rows, each list padded to the longest of them.
func encode(contract *Contract, rows []Row) *inference.ModelInferRequest {
	request := &inference.ModelInferRequest{ModelName: contract.Model}
	for _, tensor := range contract.Inputs {
		width, rows := tensor.Size, rows
		if tensor.AlignedWith != "" {
			rows = laidOut(tensor, rows)
		}
		if width == Any {
			for _, row := range rows {
				if size := row.size(tensor.Name); size > width {
					width = size
				}
			}
		}
		request.Inputs = append(request.Inputs, &inference.ModelInferRequest_InferInputTensor{
			Name:     tensor.Name,
			Datatype: tensor.Datatype,
			Shape:    []int64{int64(len(rows)), int64(width)},
			Contents: contents(tensor, rows, width),
		})
	}
	return request
}

func laidOut(tensor Tensor, rows []Row) []Row {
	made := make([]Row, len(rows))
	for i, row := range rows {
		made[i] = Row{tensor.Name: row.laidOut(tensor)}
	}
	return made
}

func contents(tensor Tensor, rows []Row, width int) *inference.InferTensorContents {
	switch tensor.Datatype {
	case "BYTES":
		texts := padded[Strings](rows, tensor.Name, width, "")
		bytes := make([][]byte, len(texts))
		for i, text := range texts {
			bytes[i] = []byte(text)
		}
		return &inference.InferTensorContents{BytesContents: bytes}
	case "FP32":
		return &inference.InferTensorContents{
			Fp32Contents: padded[Floats](rows, tensor.Name, width, unknown),
		}
	default:
		return &inference.InferTensorContents{
			IntContents: padded[Ints](rows, tensor.Name, width, 0),
		}
	}
}

func padded[V interface {
	~[]T
	Value
}, T any](rows []Row, name string, width int, unknown T) []T {
	flat := make([]T, 0, len(rows)*width)
	for _, row := range rows {
		values, _ := row[name].(V)
		flat = append(flat, values...)
		for n := len(values); n < width; n++ {
			flat = append(flat, unknown)
		}
	}
	return flat
}

// decode splits an answer into the rows that were asked, without what their padding added.
func decode(
	contract *Contract, rows []Row, response *inference.ModelInferResponse,
) ([]Row, error) {
	answers := make([]Row, len(rows))
	for i := range answers {
		answers[i] = make(Row, len(contract.Outputs))
	}
	for _, tensor := range contract.Outputs {
		values, err := output(tensor, len(rows), response)
		if err != nil {
			return nil, fmt.Errorf("malformed answer, %q: %w", tensor.Name, err)
		}
		width := values.size() / len(rows)
		for i, row := range rows {
			size := width
			if tensor.Size == Any {
				size = row.size(candidates)
			}
			if size > width {
				return nil, fmt.Errorf("malformed answer, %q: %d values for the %d of row %d",
					tensor.Name, width, size, i)
			}
			answers[i][tensor.Name] = values.slice(i*width, i*width+size)
		}
	}
	return answers, nil
}

// output is a tensor of (rows, any width), as a flat list.
func output(tensor Tensor, rows int, response *inference.ModelInferResponse) (Value, error) {
	for i, found := range response.Outputs {
		if found.Name != tensor.Name {
			continue
		}
		if i >= len(response.RawOutputContents) {
			return nil, errors.New("no contents")
		}
		raw := response.RawOutputContents[i]
		shape := found.Shape
		// A value takes four bytes or more, so a width beyond the bytes is never right.
		if len(shape) != 2 || shape[0] != int64(rows) || shape[1] < 0 || shape[1] > int64(len(raw)) {
			return nil, fmt.Errorf("shape %v of %d bytes for %d rows", shape, len(raw), rows)
		}
		if found.Datatype != tensor.Datatype {
			return nil, fmt.Errorf("%s in place of %s", found.Datatype, tensor.Datatype)
		}
		return parse(tensor.Datatype, raw, rows*int(shape[1]))
	}
	return nil, errors.New("not there")
}

// parse reads little-endian numbers, or strings that each follow their length.
func parse(datatype string, raw []byte, count int) (Value, error) {
	if datatype == "BYTES" {
		texts := make(Strings, 0, count)
		for len(raw) >= 4 {
			length := uint64(binary.LittleEndian.Uint32(raw))
			if raw = raw[4:]; length > uint64(len(raw)) {
				break
			}
			texts = append(texts, string(raw[:length]))
			raw = raw[length:]
		}
		if len(raw) != 0 || len(texts) != count {
			return nil, fmt.Errorf("%d strings and %d more bytes, not %d strings",
				len(texts), len(raw), count)
		}
		return texts, nil
	}
	if len(raw) != 4*count {
		return nil, fmt.Errorf("%d bytes for %d numbers", len(raw), count)
	}
	if datatype == "FP32" {
		values := make(Floats, count)
		for i := range values {
			values[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		return values, nil
	}
	values := make(Ints, count)
	for i := range values {
		values[i] = int32(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return values, nil
}
