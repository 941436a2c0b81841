package syncer

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// What the guard counts of three kinds between messy fetches, each with the one before it and with
// some of its rows changed, is pinned by a digest of all decisions.
func TestCompareGolden(t *testing.T) {
	digest := sha256.New()
	limits := GuardLimits{MaxOpened: 1000, MaxAdded: 1000} // the digest is of the other three
	some := GuardLimits{MaxOpened: 1000, MaxAdded: 1000, MinChanged: 2, MaxMoved: 0.2}
	for _, keep := range []bool{false, true} {
		rng := provisiontest.Rand(11)
		var before *provision.Snapshot
		for range 300 {
			in := provisiontest.MessyInput(rng, rng.IntN(60))
			in.KeepVacant = keep
			for i := range in.Lines {
				if b := &in.Lines[i]; rng.IntN(3) == 0 {
					b.Subscriber, b.Addresses = b.Subscriber+provision.SubscriberID(12*rng.IntN(5)), nil
				}
			}
			old, _ := provision.Build(in)
			for range rng.IntN(6) {
				if len(in.Lines) == 0 {
					break
				}
				i := rng.IntN(len(in.Lines))
				b := &in.Lines[i]
				switch rng.IntN(5) {
				case 0:
					in.Lines = in.Lines[i:]
				case 1:
					b.Port++
				case 2:
					b.Addresses = provision.Hosts4(provisiontest.IP(rng.IntN(110)))
				case 3:
					b.Addresses = nil
				case 4:
					b.PortName, b.Device = "", b.Device%3
				}
			}
			candidate, _ := provision.Build(in)
			states := map[provision.SubscriberID]provision.State{provision.SubscriberID(rng.IntN(30)): provision.StateStop, provision.SubscriberID(rng.IntN(60)): provision.StateActive}
			for _, d := range []GuardDecision{
				Compare(before, candidate, limits), Compare(old, candidate, some),
				Compare(candidate, old, limits), Compare(old, old.WithStates(states), limits),
			} {
				text, err := json.Marshal(struct {
					Hold        bool       `json:"hold"`
					NoRows      bool       `json:"no_rows"`
					Subscribers int        `json:"subscribers"`
					Removed     GuardCount `json:"removed"`
					Moved       GuardCount `json:"moved"`
					Blocked     GuardCount `json:"blocked"`
					Reason      string     `json:"reason,omitempty"`
				}{d.Hold, d.NoRows, d.Subscribers, d.Removed, d.Moved, d.Blocked, d.Reason})
				require.NoError(t, err)
				digest.Write(text)
			}
			before = candidate
		}
	}
	require.Equal(t, "6dc631b46c0b8c94", fmt.Sprintf("%x", digest.Sum(nil)[:8]))
}
