package config

import (
	"slices"
	"strconv"

	"github.com/goccy/go-yaml/ast"
)

// Policy says what the states and flags of the ERP mean; see provision.Policy.
// The words are allow, pause and stop.
type Policy struct {
	States       map[int]string // state_id to word; 0, 1 and 2 are always in it
	OtherStates  string         // of numbers that are not in States; unknown: never blocked, reported
	Disabled     string         // is_disable = 1
	Potential    string         // is_potential = 1
	NotInBilling string         // is_in_billing = 0
	Former       string         // in the list of former customers
}

// maxState bounds the numbers of states; an installation has a handful.
const maxState = 9999

func (d *decoder) policy(v value, p *Policy) {
	m := v.mapping("states", "other_states", "disabled", "potential", "not_in_billing", "former")
	p.States = m.get("states").stateTable()
	p.OtherStates = m.get("other_states").oneOf("unknown", "unknown", "allow", "pause", "stop")
	p.Disabled = m.get("disabled").access("stop")
	p.Potential = m.get("potential").access("stop")
	p.NotInBilling = m.get("not_in_billing").access("allow")
	p.Former = m.get("former").access("stop")
	if active := p.States[2]; active != "allow" {
		m.get("states").warn("state 2 is the ERP's \"active\", and %s is what these customers get", active)
	}
}

func (v value) access(def string) string { return v.oneOf(def, "allow", "pause", "stop") }

// stateTable reads a mapping of state numbers to words. What it leaves out of
// 0, 1 and 2 keeps the meaning that the ERP gives it.
func (v value) stateTable() map[int]string {
	out := map[int]string{0: "stop", 1: "pause", 2: "allow"}
	var pairs []*ast.MappingValueNode
	switch n := v.node.(type) {
	case nil:
		return out
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		v.problem("want a mapping of state numbers to allow, pause or stop, got %s", kindOf(v.node))
		return out
	}
	var seen []int
	for _, pair := range pairs {
		at := placeOf(pair.Key, v.at)
		key := value{d: v.d, path: v.path, at: at}
		text := ""
		if tk := pair.Key.GetToken(); tk != nil {
			text = tk.Value
		}
		number, err := strconv.Atoi(text)
		switch {
		case err != nil || number < 0 || number > maxState:
			key.problem("want the number of a state from 0 to %d as the key, got %q", maxState, excerpt(text))
			continue
		case slices.Contains(seen, number):
			key.problem("state %d is given twice", number)
			continue
		}
		seen = append(seen, number)
		el := v.d.value(v.child(strconv.Itoa(number)), pair.Value, at, at)
		if !el.present() {
			el.problem("missing; want allow, pause or stop")
			continue
		}
		if word := el.access(""); word != "" {
			out[number] = word
		}
	}
	return out
}
