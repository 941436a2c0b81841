package provision

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files in testdata")

// TestPolicyReference pins the default policy for every combination of state and
// flags: states 0..2, one without a meaning and none; each flag unread, no, yes.
// The file is the table that people read, too.
func TestPolicyReference(t *testing.T) {
	policy := DefaultPolicy()
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %-9s %-9s %-14s %-7s %s\n", "state_id", "disabled", "potential", "not_in_billing", "former", "result")
	flags := []Flag{FlagNo, FlagYes, FlagUnread}
	rows := 0
	for _, id := range []int{0, 1, 2, 7, NoStateID} {
		for _, disabled := range flags {
			for _, potential := range flags {
				for _, billing := range flags {
					for _, former := range flags {
						f := Flags{disabled, potential, billing, former}
						name := fmt.Sprint(id)
						if id == NoStateID {
							name = "none"
						}
						fmt.Fprintf(&b, "%-8s %-9s %-9s %-14s %-7s %s\n", name, disabled, potential, billing, former, policy.State(id, f))
						rows++
					}
				}
			}
		}
	}
	require.Equal(t, 5*3*3*3*3, rows)
	const golden = "testdata/policy.txt"
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("policy (-want +got), go test -update writes it anew:\n%s", diff)
	}
}

// TestPolicyRule compares every policy with an independent statement of the
// rule: among what the state and each set flag mean, stop beats pause beats the
// rest, and unread flags are as if they were not there.
func TestPolicyRule(t *testing.T) {
	means := []State{StateActive, StatePause, StateStop}
	flags := []Flag{FlagUnread, FlagNo, FlagYes}
	n := 0
	for _, other := range []State{StateUnknown, StateActive, StatePause, StateStop} {
		for pick := range 81 { // meanings of the four flags
			p := Policy{States: map[int]State{0: StateStop, 1: StatePause, 2: StateActive, 9: StatePause}, Other: other,
				Disabled: means[pick%3], Potential: means[pick/3%3], NotInBilling: means[pick/9%3], Former: means[pick/27%3]}
			for set := range 81 { // values of the four flags
				f := Flags{flags[set%3], flags[set/3%3], flags[set/9%3], flags[set/27%3]}
				for id, own := range map[int]State{0: StateStop, 1: StatePause, 2: StateActive, 9: StatePause, 42: other, -1: StateUnknown, -7: StateUnknown} {
					said := []State{own}
					for _, x := range []struct {
						f Flag
						s State
					}{{f.Disabled, p.Disabled}, {f.Potential, p.Potential}, {f.NotInBilling, p.NotInBilling}, {f.Former, p.Former}} {
						if x.f == FlagYes {
							said = append(said, x.s)
						}
					}
					want := own
					for _, w := range []State{StatePause, StateStop} {
						for _, s := range said {
							if s == w {
								want = w
							}
						}
					}
					if got := p.State(id, f); got != want {
						t.Fatalf("policy %+v, state %d, flags %+v: %s, want %s", p, id, f, got, want)
					}
					n++
				}
			}
		}
	}
	assert.Equal(t, 4*81*81*7, n)
}

func TestPolicyAsksForWhatItNeeds(t *testing.T) {
	plain, usual := PlainPolicy(), DefaultPolicy()
	assert.False(t, plain.Heeds())
	assert.False(t, plain.HeedsFormer())
	assert.True(t, usual.Heeds())
	assert.True(t, usual.HeedsFormer())
	billing := PlainPolicy()
	billing.NotInBilling = StatePause
	assert.True(t, billing.Heeds())
	assert.False(t, billing.HeedsFormer())
	assert.True(t, usual.Knows(2))
	assert.False(t, usual.Knows(3))
	assert.False(t, usual.Knows(NoStateID))
	usual.Other = StateActive
	assert.True(t, usual.Knows(3))
	assert.False(t, usual.Knows(NoStateID))
}

func TestFlagsMerge(t *testing.T) {
	f := Flags{Disabled: FlagYes, Former: FlagYes}
	f.Merge(Flags{Disabled: FlagNo, Potential: FlagYes})
	assert.Equal(t, Flags{Disabled: FlagNo, Potential: FlagYes, Former: FlagYes}, f)
}

func TestParseAccess(t *testing.T) {
	for word, want := range map[string]State{"allow": StateActive, "pause": StatePause, "stop": StateStop, "unknown": StateUnknown} {
		got, err := ParseAccess(word)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := ParseAccess("active")
	assert.ErrorContains(t, err, `"active": want allow, pause, stop or unknown`)
}
