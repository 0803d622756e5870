package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"seqrec"
)

const history = "history_item_ids"

// nowhere refuses connections: a call that has another outcome than Unavailable sent nothing.
const nowhere = "127.0.0.1:1"

var (
	ctx     = context.Background()
	oneItem = []seqrec.Row{{history: seqrec.Strings{"1"}}}
)

type testCase struct {
	name string
	run  func() error
}

// cases are those that there is a server for.
func cases(client *seqrec.Client, models []served, given servers) []testCase {
	made := []testCase{
		{"all rows in one call", func() error { return allRows(client, models) }},
		{"unknown model", func() error {
			_, err := client.Call(ctx, like("no_such_model", "BYTES"), oneItem)
			return failsWith(codes.NotFound, "no_such_model", err)
		}},
		{"unknown input", func() error {
			return refused(seqrec.Row{"histroy": seqrec.Strings{"1"}}, "histroy")
		}},
		{"wrong value", func() error {
			if err := refused(seqrec.Row{history: seqrec.Floats{1}}, "found FP32"); err != nil {
				return err
			}
			return refused(seqrec.Row{history: seqrec.Strings{"1", "\xff"}}, "UTF-8")
		}},
		{"no rows", func() error {
			answer, err := call(nowhere, seqrec.Options{}, "sasrec", []seqrec.Row{})
			if len(answer) > 0 {
				return fmt.Errorf("%d rows", len(answer))
			}
			return err
		}},
	}
	sasrec := named(models, "sasrec")
	if sasrec != nil {
		made = append(made, testCase{"wrong dtype", func() error {
			_, err := client.Call(ctx, like("sasrec", "FP32"), []seqrec.Row{{history: seqrec.Floats{1}}})
			return failsWith(codes.InvalidArgument, history, err)
		}})
	}
	if given.gone != "" {
		made = append(made, testCase{"server gone", func() error {
			return within(9*time.Second, func() error {
				_, err := call(given.gone, seqrec.Options{}, "sasrec", oneItem)
				return failsWith(codes.Unavailable, "", err)
			})
		}})
	}
	if given.silent != "" {
		made = append(made, testCase{"deadline", func() error {
			return within(9*time.Second, func() error {
				options := seqrec.Options{Timeout: 300 * time.Millisecond}
				_, err := call(given.silent, options, "sasrec", oneItem)
				return failsWith(codes.DeadlineExceeded, "", err)
			})
		}})
	}
	if given.flaky != "" {
		made = append(made,
			testCase{"retries", func() error { return retries(given.flaky) }},
			testCase{"malformed answer", func() error {
				_, err := call(given.flaky, seqrec.Options{}, "torn", oneItem)
				return failsWith(codes.Internal, "malformed", err)
			}})
	}
	if given.flaky != "" && given.layouts != "" {
		made = append(made, testCase{"laid out", func() error { return laidOut(given) }})
	}
	if given.tlsURL != "" && sasrec != nil {
		made = append(made, testCase{"tls", func() error { return encrypted(given, sasrec.requests[0]) }})
	}
	return append(made, filterCases(client, models, given)...)
}

func retries(address string) error {
	client, err := seqrec.Dial(address, seqrec.Options{})
	if err != nil {
		return err
	}
	defer client.Close()
	got, err := client.Recommend(ctx, like("unavailable_twice", "BYTES"), oneItem, 0)
	if err != nil {
		return err
	}
	want := []seqrec.Recommendation{
		{Items: []seqrec.Item{{ID: "a", Score: 2}, {ID: "b", Score: 1}}, KnownItems: 1},
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("%v, not %v", got, want)
	}
	_, err = client.Call(ctx, like("unavailable", "BYTES"), oneItem)
	if err := failsWith(codes.Unavailable, "", err); err != nil {
		return err
	}
	_, err = client.Call(ctx, like("internal", "BYTES"), oneItem)
	return failsWith(codes.Internal, "", err)
}

// laidOut sends rows whose lists follow their histories, to a server that looks at what comes.
func laidOut(given servers) error {
	models, err := readRepository(given.layouts)
	if err != nil {
		return err
	}
	contract, err := seqrec.ReadContract(filepath.Join(given.layouts, "laid_out", "contract.json"))
	if err != nil {
		return err
	}
	client, err := seqrec.Dial(given.flaky, seqrec.Options{})
	if err != nil {
		return err
	}
	defer client.Close()
	var rows []seqrec.Row
	for _, request := range models[0].requests {
		rows = append(rows, request.rows...)
	}
	answers, err := client.Call(ctx, contract, rows)
	for i, answer := range answers {
		if difference := models[0].requests[i].compare([]seqrec.Row{answer}); difference != "" {
			return errors.New(difference)
		}
	}
	return err
}

func encrypted(given servers, request golden) error {
	answer, err := call(given.tlsURL, seqrec.Options{TLS: &given.tls}, "sasrec", request.rows)
	if err != nil {
		return err
	}
	if difference := request.compare(answer); difference != "" {
		return errors.New(difference)
	}
	stranger := seqrec.TLS{Cert: given.tls.Cert, Key: given.tls.Key}
	_, err = call(given.tlsURL, seqrec.Options{TLS: &stranger}, "sasrec", request.rows)
	return failsWith(codes.Unavailable, "", err)
}

// call makes a connection for one call.
func call(
	address string, options seqrec.Options, model string, rows []seqrec.Row,
) ([]seqrec.Row, error) {
	client, err := seqrec.Dial(address, options)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.Call(ctx, like(model, "BYTES"), rows)
}

func refused(row seqrec.Row, message string) error {
	_, err := call(nowhere, seqrec.Options{}, "sasrec", []seqrec.Row{row})
	return failsWith(codes.InvalidArgument, message, err)
}

// failsWith wants an error of this code, whose message holds a text.
func failsWith(code codes.Code, text string, err error) error {
	var failure *seqrec.Error
	if !errors.As(err, &failure) || failure.Code != code || !strings.Contains(failure.Message, text) {
		return fmt.Errorf("%s with %q expected, found: %v", code, text, err)
	}
	return nil
}

func within(limit time.Duration, run func() error) error {
	start := time.Now()
	err := run()
	if took := time.Since(start); err == nil && took > limit {
		return fmt.Errorf("took %s", took)
	}
	return err
}

func named(models []served, name string) *served {
	for i := range models {
		if models[i].contract.Model == name {
			return &models[i]
		}
	}
	return nil
}

// like is sasrec's contract under another name, and with a history of another type.
func like(model, datatype string) *seqrec.Contract {
	return &seqrec.Contract{
		Model:        model,
		MaxBatchSize: 64,
		Inputs:       []seqrec.Tensor{{Name: history, Datatype: datatype}},
		Outputs: []seqrec.Tensor{
			{Name: "item_ids", Datatype: "BYTES", Size: 100},
			{Name: "scores", Datatype: "FP32", Size: 100},
			{Name: "known_items", Datatype: "INT32", Size: 1},
		},
	}
}
