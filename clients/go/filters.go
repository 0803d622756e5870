package seqrec

import (
	"fmt"
	"sort"
	"strings"

	"google.golang.org/grpc/codes"
)

// Filters say what may come back. All of it holds together, for every row of a call.
type Filters struct {
	Exclude  []string           // these never come back
	Allow    Allowed            // only these items may come back
	Where    map[string]Allowed // by attribute: only items with one of the values may come back
	KeepSeen bool               // what the history holds may come back
}

// Allowed is what may come back. The zero value allows everything; OneOf makes another.
type Allowed struct {
	values []string
	given  bool
}

// OneOf allows these alone. A call that allows nothing is refused: the server would take an empty
// list for no filter.
func OneOf(values ...string) Allowed {
	return Allowed{values, true}
}

const (
	excluded = "exclude_item_ids"
	allowed  = "allow_item_ids"
	keepSeen = "keep_seen"
	query    = "query_item_ids"
	where    = "allow_" // before an attribute's name
)

// narrowed is what to ask, and with which rows: the contract itself if nothing filters, else its
// Filtered.
func (c *Client) narrowed(
	contract *Contract, rows []Row, filters []Filters,
) (*Contract, []Row, error) {
	given, err := one(filters)
	if err == nil && len(given) > 0 {
		if contract.Filtered == nil {
			err = fmt.Errorf("%s has no filters", contract.Model)
		} else {
			taken := contract.Filtered.Inputs[len(contract.Inputs):]
			err = lacking(contract.Filtered, taken, given)
			contract, rows = contract.Filtered, added(rows, given)
		}
	}
	if err != nil {
		return nil, nil, c.fail(codes.InvalidArgument, contract.Model, "%s", err)
	}
	return contract, rows, nil
}

// similar is the same for items to compare others with.
func (c *Client) similar(
	contract *Contract, ids [][]string, filters []Filters,
) (*Contract, []Row, error) {
	given, err := one(filters)
	if err == nil && contract.SimilarItems == nil {
		err = fmt.Errorf("%s has no similar items", contract.Model)
	}
	if err == nil {
		err = lacking(contract.SimilarItems, contract.SimilarItems.Inputs[1:], given)
	}
	if err != nil {
		return nil, nil, c.fail(codes.InvalidArgument, contract.Model, "%s", err)
	}
	rows := make([]Row, len(ids))
	for i, list := range ids {
		rows[i] = Row{query: Strings(list)}
	}
	return contract.SimilarItems, added(rows, given), nil
}

// one is what the filters of a call give, by the names of the inputs.
func one(filters []Filters) (Row, error) {
	if len(filters) == 0 {
		return nil, nil
	}
	if len(filters) > 1 {
		return nil, fmt.Errorf("takes filters once, found %d of them", len(filters))
	}
	given := Row{}
	if len(filters[0].Exclude) > 0 {
		given[excluded] = Strings(filters[0].Exclude)
	}
	if filters[0].KeepSeen {
		given[keepSeen] = Ints{1}
	}
	wanted := map[string]Allowed{allowed: filters[0].Allow}
	for attribute, values := range filters[0].Where {
		wanted[where+attribute] = values
	}
	for name, allow := range wanted {
		if !allow.given {
			continue
		}
		if allow.empty() {
			return nil, fmt.Errorf("%s is OneOf without a value, which the server would take for no "+
				"filter; leave it out if everything is allowed, and do not ask if nothing is", said(name))
		}
		given[name] = Strings(allow.values)
	}
	return given, nil
}

// empty is whether the server would see nothing: an empty value is padding, and it cuts one at NUL.
func (a Allowed) empty() bool {
	for _, value := range a.values {
		if value != "" && value[0] != 0 {
			return false
		}
	}
	return true
}

// lacking says which of the filters a graph does not take.
func lacking(asked *Contract, taken []Tensor, given Row) error {
	for name := range given {
		if _, known := find(taken, name); !known {
			takes := names(taken)
			for i := range takes {
				takes[i] = said(takes[i])
			}
			sort.Strings(takes)
			return fmt.Errorf("%s does not filter by %s; it takes %s",
				asked.Model, said(name), strings.Join(takes, ", "))
		}
	}
	return nil
}

// added are the rows with the filters among their values.
func added(rows []Row, given Row) []Row {
	if len(given) == 0 {
		return rows
	}
	made := make([]Row, len(rows))
	for i, row := range rows {
		made[i] = Row{}
		for _, values := range []Row{row, given} {
			for name, value := range values {
				made[i][name] = value
			}
		}
	}
	return made
}

// said is an input as the field that gives it.
func said(name string) string {
	switch name {
	case excluded:
		return "Exclude"
	case allowed:
		return "Allow"
	case keepSeen:
		return "KeepSeen"
	}
	return fmt.Sprintf("Where[%q]", strings.TrimPrefix(name, where))
}
