package erpcmd

import (
	"cmp"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/usher-agent/usher/userside"
)

// tidy gives an answer one form whatever the version of the server: lists are
// lists, and of several customers that were asked for, those that are not there are
// missing, told apart from the others.
func tidy(a userside.Action, args url.Values, data any) (tidied any, missing []string) {
	_, lookup := a.Param("data_typer")
	switch {
	case a.Category == "customer" && a.Name == "get_data":
		return customersOf(args, data)
	case a.Answer == userside.AnswerIDs && (!lookup || strings.Contains(plain(data), ",")):
		return listOf(data), nil
	case a.Answer == userside.AnswerRows && data == nil:
		return []any{}, nil
	case a.Answer == userside.AnswerRows && a.Name != "get_ip_port_device_commutation": // whose keys are data
		return uncounted(data), nil
	case a.Answer == userside.AnswerMap && data == nil:
		return object{}, nil
	}
	return data, nil
}

// listOf makes a list of ids of a text with commas, as old servers have it under
// list, or of one id, or of nothing.
func listOf(data any) any {
	switch v := data.(type) {
	case nil:
		return []any{}
	case json.Number:
		return []any{v}
	case object:
		return uncounted(v)
	case string:
		out := []any{}
		for id := range strings.SplitSeq(v, ",") {
			if id = strings.TrimSpace(id); id == "" {
				continue
			}
			if _, err := strconv.ParseInt(id, 10, 64); err != nil {
				return data // no ids: as it came
			}
			out = append(out, json.Number(id))
		}
		return out
	}
	return data
}

// uncounted makes a list of an object whose keys only count from 0, as PHP prints
// a list that lost a member.
func uncounted(data any) any {
	v, _ := data.(object)
	if _, zero := v.Get("0"); !zero || slices.ContainsFunc(v, func(e userside.Entry[any]) bool { return !isNumber(e.Key) }) {
		return data
	}
	out := make([]any, len(v))
	for i, e := range v {
		out[i] = e.Value
	}
	return out
}

// customersOf takes the word of the server for missing customers out of the answer,
// and finds out by itself which they are: some servers say nothing, others not whom.
func customersOf(args url.Values, data any) (any, []string) {
	asked := strings.Split(cmp.Or(args.Get("customer_id"), args.Get("id")), ",")
	if len(asked) < 2 {
		return data, nil
	}
	var found []string
	note := func(key string, v any) {
		if card, ok := v.(object); ok {
			if id, ok := card.Get("id"); ok {
				key = plain(id)
			}
			found = append(found, key)
		}
	}
	switch v := data.(type) {
	case []any:
		for _, card := range v {
			note("", card)
		}
	case object:
		if _, one := v.Get("id"); one {
			note("", v)
			break
		}
		v = slices.DeleteFunc(slices.Clone(v), func(e userside.Entry[any]) bool { return e.Key == "error" })
		for _, e := range v {
			note(e.Key, e.Value)
		}
		data = v
	}
	var missing []string
	for _, id := range asked {
		if !slices.Contains(found, id) && !slices.Contains(missing, id) {
			missing = append(missing, id)
		}
	}
	return data, missing
}
