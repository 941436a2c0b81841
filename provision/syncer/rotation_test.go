package syncer

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

// Answers of which each is wrong about another nine percent hit no more than one that is wrong about them all, whether they come by lists or
// by cards, and when they are right again all of it is in use at once.
func TestAnswersWrongAboutOthersEachTime(t *testing.T) {
	for name, wrong := range map[string]func(in *provision.Input, bad []provision.SubscriberID){
		"blocked": func(in *provision.Input, bad []provision.SubscriberID) { paint(in, provision.StateStop, bad...) },
		"opened": func(in *provision.Input, bad []provision.SubscriberID) {
			paint(in, provision.StateActive, bad...)
		},
		"removed": func(in *provision.Input, bad []provision.SubscriberID) {
			in.Lines = slices.DeleteFunc(in.Lines, func(l provision.Line) bool { return slices.Contains(bad, l.Subscriber) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				is := provision.StateActive
				if name == "opened" {
					is = provision.StatePause
				}
				b.setStates(is, first(200)...)
				s, _ := startBooks(t, b, tightGuard, nil, nil)
				right := s.Current().Fingerprint()
				hit, held := map[provision.SubscriberID]bool{}, 0
				for turn := range 12 {
					b.setSpoil(func(in *provision.Input) {
						var bad []provision.SubscriberID
						for i := range 18 {
							bad = append(bad, provision.SubscriberID(1000+(turn*18+i)%200))
						}
						wrong(in, bad)
					})
					wholePoll(s)
					for _, id := range first(200) {
						if s.Current().State(id) != is || s.Current().BySubscriber(id).Len() == 0 {
							hit[id] = true
						}
					}
					if s.Status().Held != nil {
						held++
					}
					pass(50 * time.Second)
				}
				assert.LessOrEqual(t, len(hit), 20, "a tenth")
				assert.GreaterOrEqual(t, held, 10)
				b.setSpoil(nil)
				wholePoll(s)
				require.Nil(t, s.Status().Held)
				assert.Equal(t, right, s.Current().Fingerprint())
				b.setStates(provision.StateStop, first(1)...)
				wholePoll(s)
				pass(time.Hour)
				require.Nil(t, s.Status().Held)
				assert.Equal(t, provision.StateStop, s.Current().State(1000), "an hour later at the latest")
			})
		})
	}
}
