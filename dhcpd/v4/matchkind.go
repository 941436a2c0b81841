package v4

import (
	"fmt"
	"slices"
	"strings"
)

// MatchKind is one way to find the binding of a client. Several of them in one
// value must agree: MatchOption82|MatchMAC is the address of the port that the ERP has with the client's MAC.
type MatchKind uint8

// The ways to find a binding.
const (
	MatchOption82 MatchKind = 1 << iota // by the switch and port that option 82 names
	MatchVLAN                           // by the VLAN that the interface is named after
	MatchClientID                       // by the client identifier
	MatchMAC                            // by the client's MAC

	matchEnd
)

// matchWords are the words of match kinds, in the order that they are written in.
func matchWords() []string { return []string{"option82", "vlan", "client_id", "mac"} }

// String returns option82, vlan, client_id or mac, several joined by "+"; empty for zero.
func (k MatchKind) String() string {
	var words []string
	for i, w := range matchWords() {
		if k&(1<<i) != 0 {
			words = append(words, w)
		}
	}
	return strings.Join(words, "+")
}

// ParseMatchKind reads what String returns, in any order.
func ParseMatchKind(s string) (MatchKind, error) {
	var k MatchKind
	for word := range strings.SplitSeq(s, "+") {
		i := slices.Index(matchWords(), word)
		if i < 0 || k&(1<<i) != 0 {
			return 0, fmt.Errorf("match %q: want %s, or several of them joined by +", s, strings.Join(matchWords(), ", "))
		}
		k |= 1 << i
	}
	return k, nil
}
