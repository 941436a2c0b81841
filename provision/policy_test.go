package provision_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

// noStateID stands for a state_id that was not read.
const noStateID = -1

var update = flag.Bool("update", false, "write the golden files in testdata")

// TestPolicyReference pins the default policy for every combination of state and
// flags: states 0..2, one without a meaning and none; each flag unread, no, yes.
// The file is the table that people read, too.
func TestPolicyReference(t *testing.T) {
	policy := provision.DefaultPolicy()
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %-9s %-9s %-14s %-7s %s\n", "state_id", "disabled", "potential", "not_in_billing", "former", "result")
	flags := []provision.Flag{provision.FlagNo, provision.FlagYes, provision.FlagUnread}
	rows := 0
	for _, id := range []int{0, 1, 2, 7, noStateID} {
		for _, disabled := range flags {
			for _, potential := range flags {
				for _, billing := range flags {
					for _, former := range flags {
						f := provision.Flags{disabled, potential, billing, former}
						name := fmt.Sprint(id)
						if id == noStateID {
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
	means := []provision.State{provision.StateActive, provision.StatePause, provision.StateStop}
	flags := []provision.Flag{provision.FlagUnread, provision.FlagNo, provision.FlagYes}
	n := 0
	for _, other := range []provision.State{provision.StateUnknown, provision.StateActive, provision.StatePause, provision.StateStop} {
		for pick := range 81 { // meanings of the four flags
			p := provision.Policy{States: map[int]provision.State{0: provision.StateStop, 1: provision.StatePause, 2: provision.StateActive, 9: provision.StatePause}, Other: other,
				Disabled: means[pick%3], Potential: means[pick/3%3], NotInBilling: means[pick/9%3], Former: means[pick/27%3]}
			for set := range 81 { // values of the four flags
				f := provision.Flags{flags[set%3], flags[set/3%3], flags[set/9%3], flags[set/27%3]}
				for id, own := range map[int]provision.State{0: provision.StateStop, 1: provision.StatePause, 2: provision.StateActive, 9: provision.StatePause, 42: other, -1: provision.StateUnknown, -7: provision.StateUnknown} {
					said := []provision.State{own}
					for _, x := range []struct {
						f provision.Flag
						s provision.State
					}{{f.Disabled, p.Disabled}, {f.Potential, p.Potential}, {f.NotInBilling, p.NotInBilling}, {f.Former, p.Former}} {
						if x.f == provision.FlagYes {
							said = append(said, x.s)
						}
					}
					want := own
					for _, w := range []provision.State{provision.StatePause, provision.StateStop} {
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
	plain, usual := provision.PlainPolicy(), provision.DefaultPolicy()
	assert.False(t, plain.Heeds())
	assert.False(t, plain.HeedsFormer())
	assert.True(t, usual.Heeds())
	assert.True(t, usual.HeedsFormer())
	billing := provision.PlainPolicy()
	billing.NotInBilling = provision.StatePause
	assert.True(t, billing.Heeds())
	assert.False(t, billing.HeedsFormer())
	assert.True(t, usual.Knows(2))
	assert.False(t, usual.Knows(3))
	assert.False(t, usual.Knows(noStateID))
	usual.Other = provision.StateActive
	assert.True(t, usual.Knows(3))
	assert.False(t, usual.Knows(noStateID))
}

func TestFlagsMerge(t *testing.T) {
	f := provision.Flags{Disabled: provision.FlagYes, Former: provision.FlagYes}
	f.Merge(provision.Flags{Disabled: provision.FlagNo, Potential: provision.FlagYes})
	assert.Equal(t, provision.Flags{Disabled: provision.FlagNo, Potential: provision.FlagYes, Former: provision.FlagYes}, f)
}
