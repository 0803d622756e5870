package main

import (
	"fmt"
	"math"

	"seqrec"
)

// allRows sends all rows of a model by its method, in as many requests as that takes.
func allRows(client *seqrec.Client, models []served) error {
	for _, model := range models {
		var rows []seqrec.Row
		for _, request := range model.requests {
			rows = append(rows, request.rows...)
		}
		answers, err := byMethod(client, model.contract, rows)
		if err != nil {
			return err
		}
		if len(answers) != len(rows) {
			return fmt.Errorf("%s: %d rows, not %d", model.contract.Model, len(answers), len(rows))
		}
		for _, request := range model.requests {
			size := len(request.rows)
			if difference := request.compare(answers[:size]); difference != "" {
				return fmt.Errorf("%s: %s", request.name, difference)
			}
			answers = answers[size:]
		}
	}
	return nil
}

// byMethod has the outputs that the model's own method gives.
func byMethod(
	client *seqrec.Client, contract *seqrec.Contract, rows []seqrec.Row,
) ([]seqrec.Row, error) {
	output := contract.Outputs[0]
	if output.Name == "item_ids" {
		return recommended(client, contract, rows, output.Size)
	}
	method := client.Encode
	if output.Name == "scores" {
		method = client.Score
	}
	lists, err := method(ctx, contract, rows)
	answers := make([]seqrec.Row, len(lists))
	for i, list := range lists {
		answers[i] = seqrec.Row{output.Name: seqrec.Floats(list)}
	}
	return answers, err
}

// recommended puts the empty ids that Recommend leaves out back to where the file has them.
func recommended(
	client *seqrec.Client, contract *seqrec.Contract, rows []seqrec.Row, size int,
) ([]seqrec.Row, error) {
	recommendations, err := client.Recommend(ctx, contract, rows, 0)
	answers := make([]seqrec.Row, len(recommendations))
	for i, recommendation := range recommendations {
		ids, scores := make(seqrec.Strings, size), make(seqrec.Floats, size)
		for j := range scores {
			scores[j] = -math.MaxFloat32
		}
		for j, item := range recommendation.Items {
			ids[j], scores[j] = item.ID, item.Score
		}
		known := seqrec.Ints{int32(recommendation.KnownItems)}
		answers[i] = seqrec.Row{"item_ids": ids, "scores": scores, "known_items": known}
	}
	return answers, err
}
