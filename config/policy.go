package config

import (
	"maps"
	"reflect"
	"slices"
	"strconv"

	"github.com/goccy/go-yaml/ast"

	"github.com/usher-agent/usher/provision"
)

// maxState bounds the numbers of states; an installation has a handful.
const maxState = 9999

// access reads what a customer may do, as one of words.
func (v value) access(words []string) (provision.State, bool) {
	word, ok := v.word(words)
	if !ok {
		return 0, false
	}
	state, err := provision.ParseAccess(word)
	return state, err == nil
}

// stateWords are those for what customers of a state may do.
func stateWords() []string { return []string{"allow", "pause", "stop"} }

// accessWord is the word that access reads as a state.
func accessWord(s provision.State) string {
	words := stateWords()
	return words[slices.IndexFunc(words, func(w string) bool { st, _ := provision.ParseAccess(w); return st == s })]
}

// states reads a mapping of state numbers to words. What it leaves out of
// 0, 1 and 2 keeps the meaning that the ERP gives it.
func (*decoder) states(v value, _ key, into reflect.Value) bool {
	out := map[int]provision.State{}
	maps.Copy(out, into.Interface().(map[int]provision.State))
	var pairs []*ast.MappingValueNode
	switch n := v.node.(type) {
	case nil:
		return false
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		v.problem("want a mapping of state numbers to allow, pause or stop, got %s", kindOf(v.node))
		return false
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
		if state, ok := el.access(stateWords()); ok {
			out[number] = state
		}
	}
	into.Set(reflect.ValueOf(out))
	return true
}
