// Package seqrec calls sequential recommenders on a Triton Inference Server, over gRPC and with raw
// item ids. Package seqrec/models has a typed client for each model; what they share is here.
package seqrec

import (
	"encoding/json"
	"fmt"
	"os"
)

// Any is the size of a tensor that takes, or gives, a list of any length.
const Any = 0

// Tensor is an input or output of a model.
type Tensor struct {
	Name     string
	Datatype string // BYTES, FP32 or INT32
	Size     int    // how many values a row has; Any if that is up to the row

	// AlignedWith names the history that an input follows, or is empty. A row has a list of any
	// length then, parallel to the history; on the wire it is laid out in Size values, so that the
	// last one belongs to the history's last event that is no padding. For lists that are laid out
	// already, leave it empty.
	AlignedWith string
}

// Contract says what a model takes and gives.
type Contract struct {
	Model        string
	MaxBatchSize int // how many rows the server takes in one request
	Inputs       []Tensor
	Outputs      []Tensor

	Filtered     *Contract // what is asked instead if a call has filters; nil: the model has none
	SimilarItems *Contract // what is asked for similar items
}

// ReadContract reads a contract.json, as published next to each model.
func ReadContract(path string) (*Contract, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var read struct {
		Model           string
		MaxBatchSize    int `json:"max_batch_size"`
		Inputs, Outputs []published
	}
	if err := json.Unmarshal(text, &read); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Contract{
		Model:        read.Model,
		MaxBatchSize: read.MaxBatchSize,
		Inputs:       tensors(read.Inputs),
		Outputs:      tensors(read.Outputs),
	}, nil
}

// A published tensor's shape is ["batch", 100], or ["batch", "length"] if any length goes.
type published struct {
	Name, Datatype string
	Shape          [2]any
	AlignedWith    string `json:"aligned_with"`
}

func tensors(entries []published) []Tensor {
	made := make([]Tensor, len(entries))
	for i, entry := range entries {
		size, _ := entry.Shape[1].(float64)
		made[i] = Tensor{
			Name: entry.Name, Datatype: entry.Datatype, Size: int(size), AlignedWith: entry.AlignedWith,
		}
	}
	return made
}

func find(tensors []Tensor, name string) (Tensor, bool) {
	for _, tensor := range tensors {
		if tensor.Name == name {
			return tensor, true
		}
	}
	return Tensor{}, false
}

func names(tensors []Tensor) []string {
	made := make([]string, len(tensors))
	for i, tensor := range tensors {
		made[i] = tensor.Name
	}
	return made
}
