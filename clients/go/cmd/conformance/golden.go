package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"seqrec"
)

// golden is a request of golden.json with its answer, as rows.
type golden struct {
	name       string // for failures
	atol, rtol float64
	rows, want []seqrec.Row
}

type served struct {
	contract *seqrec.Contract
	requests []golden
}

// readRepository reads each model's contract and newest golden requests. These hold tensors as they
// go over the wire, lists that follow a history among them, so that nothing is to be laid out.
func readRepository(repository string) ([]served, error) {
	paths, err := filepath.Glob(filepath.Join(repository, "*", "contract.json"))
	if err != nil {
		return nil, err
	}
	models := make([]served, len(paths))
	for i, path := range paths {
		if models[i].contract, err = seqrec.ReadContract(path); err != nil {
			return nil, err
		}
		for j := range models[i].contract.Inputs {
			models[i].contract.Inputs[j].AlignedWith = ""
		}
		if models[i].requests, err = readGolden(filepath.Dir(path)); err != nil {
			return nil, err
		}
	}
	return models, nil
}

type tensor struct {
	Datatype string
	Shape    [2]int
	Data     []json.RawMessage
}

func readGolden(model string) ([]golden, error) {
	path := filepath.Join(model, newest(model), "golden.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Requests []struct {
			Case            string
			Atol, Rtol      float64
			Inputs, Outputs map[string]tensor
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	requests := make([]golden, len(file.Requests))
	for i, entry := range file.Requests {
		request := golden{
			name: fmt.Sprintf("%s, request %d (%s)", filepath.Base(model), i, entry.Case),
			atol: entry.Atol,
			rtol: entry.Rtol,
		}
		if request.rows, err = rows(entry.Inputs); err == nil {
			request.want, err = rows(entry.Outputs)
		}
		if err != nil {
			return nil, fmt.Errorf("%s, request %d: %w", path, i, err)
		}
		requests[i] = request
	}
	return requests, nil
}

// newest is the folder of the highest version: "10" is newer than "9".
func newest(model string) string {
	highest := 0
	paths, _ := filepath.Glob(filepath.Join(model, "*", "golden.json"))
	for _, path := range paths {
		version, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if version > highest {
			highest = version
		}
	}
	return strconv.Itoa(highest)
}

func rows(tensors map[string]tensor) ([]seqrec.Row, error) {
	var made []seqrec.Row
	for name, tensor := range tensors {
		count, width := tensor.Shape[0], tensor.Shape[1]
		if made == nil {
			made = make([]seqrec.Row, count)
			for i := range made {
				made[i] = seqrec.Row{}
			}
		}
		for i, row := range made {
			value, err := value(tensor.Datatype, tensor.Data[i*width:(i+1)*width])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			row[name] = value
		}
	}
	return made, nil
}

func value(datatype string, data []json.RawMessage) (seqrec.Value, error) {
	switch datatype {
	case "BYTES":
		return each[seqrec.Strings](data, func(text json.RawMessage) (read string, err error) {
			return read, json.Unmarshal(text, &read)
		})
	case "FP32":
		return each[seqrec.Floats](data, float)
	default:
		return each[seqrec.Ints](data, func(text json.RawMessage) (read int32, err error) {
			return read, json.Unmarshal(text, &read)
		})
	}
}

func each[V ~[]T, T any](data []json.RawMessage, read func(json.RawMessage) (T, error)) (V, error) {
	values := make(V, len(data))
	for i, text := range data {
		var err error
		if values[i], err = read(text); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// float reads a number, or as a string one that JSON lacks: "NaN", "Infinity", "-Infinity".
func float(text json.RawMessage) (float32, error) {
	if unquoted, err := strconv.Unquote(string(text)); err == nil {
		text = json.RawMessage(unquoted)
	}
	number, err := strconv.ParseFloat(string(text), 32)
	return float32(number), err
}
