package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/provision"
)

// maxState bounds the numbers of states; an installation has a handful.
const maxState = 9999

// parseAccess reads the words of the configuration: allow, pause, stop, and
// unknown for what is neither.
func parseAccess(word string) (provision.State, error) {
	switch word {
	case "allow":
		return provision.StateActive, nil
	case "pause":
		return provision.StatePause, nil
	case "stop":
		return provision.StateStop, nil
	case "unknown":
		return provision.StateUnknown, nil
	}
	return provision.StateUnknown, fmt.Errorf("%q: want allow, pause, stop or unknown", word)
}

// stateOf reads what a customer may do, as one of words.
func stateOf(v keys.Value, words []string) (provision.State, bool) {
	word, ok := v.Word(words)
	if !ok {
		return 0, false
	}
	state, err := parseAccess(word)
	return state, err == nil
}

// stateWords are those for what customers of a state may do.
func stateWords() []string { return []string{"allow", "pause", "stop"} }

// accessWord is the word that stateOf reads as a state.
func accessWord(s provision.State) string {
	words := stateWords()
	return words[slices.IndexFunc(words, func(w string) bool { st, _ := parseAccess(w); return st == s })]
}

// states reads a mapping of state numbers to words. What it leaves out of
// 0, 1 and 2 keeps the meaning that the ERP gives it.
func states(v keys.Value, _ keys.Key, into reflect.Value) bool {
	out := map[int]provision.State{}
	maps.Copy(out, into.Interface().(map[int]provision.State))
	var seen []int
	ok := v.Table("a mapping of state numbers to allow, pause or stop", func(name string, at, el keys.Value) {
		number, err := strconv.Atoi(name)
		switch {
		case err != nil || number < 0 || number > maxState:
			at.Problem("want the number of a state from 0 to %d as the key, got %q", maxState, keys.Excerpt(name))
			return
		case slices.Contains(seen, number):
			at.Problem("state %d is given twice", number)
			return
		}
		seen = append(seen, number)
		if !el.Present() {
			el.Problem("missing; want allow, pause or stop")
			return
		}
		if state, ok := stateOf(el, stateWords()); ok {
			out[number] = state
		}
	})
	if ok {
		into.Set(reflect.ValueOf(out))
	}
	return ok
}
