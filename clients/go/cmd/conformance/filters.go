package main

import (
	"fmt"
	"reflect"
	"sort"
	"strings"

	"google.golang.org/grpc/codes"

	"seqrec"
)

// filterCases are none if the repository has no graphs with filters.
func filterCases(client *seqrec.Client, models []served, given servers) []testCase {
	contract := like("sasrec", "BYTES")
	filtered, similar := named(models, "sasrec_filtered"), named(models, "sasrec_similar_items")
	if filtered == nil || similar == nil {
		return nil
	}
	contract.Filtered, contract.SimilarItems = filtered.contract, similar.contract
	var attributes []string
	for _, input := range filtered.contract.Inputs {
		attribute := strings.TrimPrefix(input.Name, "allow_")
		if attribute != input.Name && attribute != "item_ids" {
			attributes = append(attributes, attribute)
		}
	}
	made := []testCase{
		{"filters", func() error { return filters(client, contract, attributes) }},
		{"similar items", func() error { return similarItems(client, contract) }},
		{"empty filter", func() error { return emptyFilter(contract, attributes) }},
	}
	if given.flaky != "" {
		made = append(made, testCase{"no filter", func() error { return noFilter(given.flaky, contract) }})
	}
	return made
}

func filters(client *seqrec.Client, contract *seqrec.Contract, attributes []string) error {
	popular, err := ids(client, contract, nil)
	if err != nil {
		return err
	}
	first, second := popular[0], popular[1]
	two := seqrec.OneOf(first, second)
	type check struct {
		history []string
		filters seqrec.Filters
		want    []string
	}
	checks := []check{
		{nil, seqrec.Filters{Exclude: []string{first}}, popular[1:]},
		{[]string{first}, seqrec.Filters{Allow: two}, []string{second}},
		{[]string{first}, seqrec.Filters{Allow: two, KeepSeen: true}, []string{first, second}},
		{nil, seqrec.Filters{Allow: two, Exclude: []string{first}}, []string{second}},
		{nil, seqrec.Filters{Allow: seqrec.OneOf("no such item")}, nil},
	}
	for _, attribute := range attributes {
		where := map[string]seqrec.Allowed{attribute: seqrec.OneOf("no such value")}
		checks = append(checks, check{nil, seqrec.Filters{Where: where}, nil})
	}
	for _, each := range checks {
		got, err := ids(client, contract, each.history, each.filters)
		if err != nil {
			return err
		}
		if len(each.want) < len(got) && len(each.want) > 2 { // what was below comes up
			got = got[:len(each.want)]
		}
		if each.filters.KeepSeen {
			sort.Strings(got)
			sort.Strings(each.want)
		}
		if len(got)+len(each.want) > 0 && !reflect.DeepEqual(got, each.want) {
			return fmt.Errorf("%v gives %q, not %q", each.filters, got, each.want)
		}
	}
	return nil
}

func similarItems(client *seqrec.Client, contract *seqrec.Contract) error {
	popular, err := ids(client, contract, nil)
	if err != nil {
		return err
	}
	first, second := popular[0], popular[1]
	found, err := client.Similar(ctx, contract, [][]string{{first, second}}, 3)
	if err != nil {
		return err
	}
	for _, item := range found[0].Items {
		if item.ID == first || item.ID == second {
			return fmt.Errorf("%s is similar to itself", item.ID)
		}
	}
	if len(found[0].Items) != 3 || found[0].KnownItems != 2 {
		return fmt.Errorf("%v", found)
	}
	only := seqrec.Filters{Allow: seqrec.OneOf(first, second)}
	found, err = client.Similar(ctx, contract, [][]string{{first}}, 3, only)
	if err == nil && (len(found[0].Items) != 1 || found[0].Items[0].ID != second) {
		return fmt.Errorf("%v, not %s", found, second)
	}
	return err
}

// emptyFilter has what must be refused before anything is sent.
func emptyFilter(contract *seqrec.Contract, attributes []string) error {
	wrong := map[string]seqrec.Filters{
		"Allow":            {Allow: seqrec.OneOf()},
		"Allow is":         {Allow: seqrec.OneOf("", "\x00")},
		`Where["no_such"]`: {Where: map[string]seqrec.Allowed{"no_such": seqrec.OneOf("a")}},
	}
	for _, attribute := range attributes {
		where := map[string]seqrec.Allowed{attribute: seqrec.OneOf()}
		wrong[fmt.Sprintf("Where[%q]", attribute)] = seqrec.Filters{Where: where}
	}
	client, err := seqrec.Dial(nowhere, seqrec.Options{})
	if err != nil {
		return err
	}
	defer client.Close()
	for said, filters := range wrong {
		_, err := client.Recommend(ctx, contract, oneItem, 0, filters)
		if err := failsWith(codes.InvalidArgument, said, err); err != nil {
			return err
		}
		_, err = client.Similar(ctx, contract, [][]string{{"a"}}, 0, filters)
		if err := failsWith(codes.InvalidArgument, said, err); err != nil {
			return err
		}
	}
	_, err = client.Similar(ctx, contract, nil, 0, seqrec.Filters{KeepSeen: true})
	if err := failsWith(codes.InvalidArgument, "KeepSeen", err); err != nil {
		return err
	}
	some := seqrec.Filters{Exclude: []string{"a"}}
	_, err = client.Recommend(ctx, contract, oneItem, 0, some, some)
	if err := failsWith(codes.InvalidArgument, "once", err); err != nil {
		return err
	}
	_, err = client.Recommend(ctx, like("sasrec", "BYTES"), oneItem, 0, some)
	return failsWith(codes.InvalidArgument, "no filters", err)
}

// noFilter asks the plain model twice, and the other once: the server counts.
func noFilter(address string, contract *seqrec.Contract) error {
	client, err := seqrec.Dial(address, seqrec.Options{})
	if err != nil {
		return err
	}
	defer client.Close()
	choice, filtered := like("choice", "BYTES"), *contract.Filtered
	filtered.Model = "choice_filtered"
	choice.Filtered = &filtered
	for _, filters := range [][]seqrec.Filters{
		nil,
		{{Exclude: []string{}, Where: map[string]seqrec.Allowed{"no_such": {}}}},
		{{Exclude: []string{"a"}}},
	} {
		if _, err := client.Recommend(ctx, choice, oneItem, 0, filters...); err != nil {
			return err
		}
	}
	return nil
}

func ids(
	client *seqrec.Client, contract *seqrec.Contract, past []string, filters ...seqrec.Filters,
) ([]string, error) {
	rows := []seqrec.Row{{history: seqrec.Strings(past)}}
	answers, err := client.Recommend(ctx, contract, rows, 10, filters...)
	if err != nil {
		return nil, err
	}
	made := make([]string, len(answers[0].Items))
	for i, item := range answers[0].Items {
		made[i] = item.ID
	}
	return made, nil
}
