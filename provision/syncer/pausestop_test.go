package syncer

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

// A poll, a whole fetch and cards that would stop the paused are held as those that would pause the others.
func TestGuardHoldsPausedOnesWhoWouldBeStopped(t *testing.T) {
	stopThem := func(in *provision.Input) {
		for i := range in.Subscribers {
			if in.Subscribers[i].State == provision.StatePause {
				in.Subscribers[i].State = provision.StateStop
			}
		}
	}
	for name, look := range map[string]func(b *books, s *Syncer, ids []provision.SubscriberID){
		"a poll": func(b *books, _ *Syncer, _ []provision.SubscriberID) {
			b.setSpoil(stopThem)
			pass(time.Minute)
		},
		"a whole fetch": func(b *books, s *Syncer, _ []provision.SubscriberID) {
			b.setSpoil(stopThem)
			wholePoll(s)
		},
		"cards, for hints": func(b *books, s *Syncer, ids []provision.SubscriberID) {
			b.setStates(provision.StateStop, ids...)
			for _, id := range ids {
				s.Hint(id)
			}
			pass(time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				ids := b.in(provision.StateActive, 100)
				b.setStates(provision.StatePause, ids...)
				s, _ := startBooks(t, b, tightGuard, nil, nil)
				was := s.Current().Counts()
				look(b, s, ids)
				require.NotNil(t, s.Status().Held)
				if name == "cards, for hints" {
					stopped := countOf(s.Current(), ids, provision.StateStop)
					assert.LessOrEqual(t, stopped, 20, "as many as may be within an hour")
					assert.Equal(t, 100-stopped, countOf(s.Current(), ids, provision.StatePause))
					return
				}
				assert.Equal(t, was.Paused, s.Status().Held.Decision.Blocked.Count)
				assert.Equal(t, was, s.Current().Counts())
				assert.Equal(t, "would be stopped", s.HeldChanges(ids[0])[0].Text())
				b.setSpoil(nil)
				wholePoll(s)
				require.Nil(t, s.Status().Held)
				b.setStates(provision.StateStop, ids[:15]...)
				wholePoll(s)
				require.Nil(t, s.Status().Held, "few may be")
				assert.Equal(t, provision.StateStop, s.Current().State(ids[0]))
				b.setStates(provision.StatePause, ids[:15]...)
				wholePoll(s)
				require.Nil(t, s.Status().Held, "and back is no change")
				assert.Equal(t, was, s.Current().Counts())
			})
		})
	}
}
