package seqrec

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"
)

// Item is a recommended item.
type Item struct {
	ID    string
	Score float32
}

// Recommendation is a row's items, best first.
type Recommendation struct {
	Items      []Item
	KnownItems int // how much of the row the model knew; 0: the answer is the cold start
}

// Recommend gives each row's best items: all that the model gives, or at most k if k > 0. Filters are
// given once or not at all; with them, the contract's Filtered is asked.
func (c *Client) Recommend(
	ctx context.Context, contract *Contract, rows []Row, k int, filters ...Filters,
) ([]Recommendation, error) {
	contract, rows, err := c.narrowed(contract, rows, filters)
	if err != nil {
		return nil, err
	}
	return c.recommend(ctx, contract, rows, k)
}

// Similar gives for each list of ids the items nearest to them, by cosine; they themselves are left
// out. The contract's SimilarItems is asked.
func (c *Client) Similar(
	ctx context.Context, contract *Contract, ids [][]string, k int, filters ...Filters,
) ([]Recommendation, error) {
	contract, rows, err := c.similar(contract, ids, filters)
	if err != nil {
		return nil, err
	}
	return c.recommend(ctx, contract, rows, k)
}

func (c *Client) recommend(
	ctx context.Context, contract *Contract, rows []Row, k int,
) ([]Recommendation, error) {
	answers, err := c.giving(ctx, contract, rows, "item_ids", "scores", "known_items")
	if err != nil {
		return nil, err
	}
	made := make([]Recommendation, len(answers))
	for i, answer := range answers {
		ids, _ := answer["item_ids"].(Strings)
		scores, _ := answer["scores"].(Floats)
		known, _ := answer["known_items"].(Ints)
		if len(ids) != len(scores) || len(known) != 1 {
			return nil, c.fail(codes.Internal, contract.Model,
				"malformed answer, row %d: %d item_ids, %d scores, %d known_items",
				i, len(ids), len(scores), len(known))
		}
		made[i] = Recommendation{Items: items(ids, scores, k), KnownItems: int(known[0])}
	}
	return made, nil
}

func items(ids Strings, scores Floats, k int) []Item {
	size := len(ids)
	for size > 0 && ids[size-1] == "" {
		size--
	}
	if k > 0 && k < size {
		size = k
	}
	made := make([]Item, size)
	for i := range made {
		made[i] = Item{ID: ids[i], Score: scores[i]}
	}
	return made
}

// Score gives a score for each of a row's candidates, in their order. An unknown candidate has the
// lowest float32.
func (c *Client) Score(ctx context.Context, contract *Contract, rows []Row) ([][]float32, error) {
	return c.floats(ctx, contract, rows, "scores")
}

// Encode gives each row's vector.
func (c *Client) Encode(ctx context.Context, contract *Contract, rows []Row) ([][]float32, error) {
	embedding := "user_embedding"
	for _, tensor := range contract.Outputs {
		if strings.HasSuffix(tensor.Name, "_embedding") {
			embedding = tensor.Name
		}
	}
	return c.floats(ctx, contract, rows, embedding)
}

func (c *Client) floats(
	ctx context.Context, contract *Contract, rows []Row, output string,
) ([][]float32, error) {
	answers, err := c.giving(ctx, contract, rows, output)
	if err != nil {
		return nil, err
	}
	made := make([][]float32, len(answers))
	for i, answer := range answers {
		made[i], _ = answer[output].(Floats)
	}
	return made, nil
}

// giving is Call for a model that has these outputs.
func (c *Client) giving(
	ctx context.Context, contract *Contract, rows []Row, outputs ...string,
) ([]Row, error) {
	for _, output := range outputs {
		if _, given := find(contract.Outputs, output); !given {
			return nil, c.fail(codes.InvalidArgument, contract.Model,
				"no output %q; the model gives %q", output, names(contract.Outputs))
		}
	}
	return c.Call(ctx, contract, rows)
}
