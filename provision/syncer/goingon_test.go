package syncer

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

// A customer whom a hint named and whose card could not be read is read after a restart, for as long as the hint counts.
func TestHintsThatWaitOutliveARestart(t *testing.T) {
	for name, tt := range map[string]struct {
		away time.Duration
		read bool
	}{"soon": {time.Minute, true}, "too late": {hintPatience, false}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(50)
				store := NewStore(filepath.Join(dir, "snapshot"))
				s, stop := startBooks(t, b, tightGuard, store, nil)
				b.change(func(b *books) { b.cards = errors.New("cards hang") })
				s.Hint(1005)
				pass(10 * time.Second)
				stop()
				b.change(func(b *books) { b.cards, b.asked = nil, nil })
				time.Sleep(tt.away)
				s, stop = startBooks(t, b, tightGuard, store, nil)
				b.change(func(b *books) {
					require.Equal(t, tt.read, slices.ContainsFunc(b.asked, func(ids []provision.SubscriberID) bool { return slices.Contains(ids, 1005) }))
				})
				require.Zero(t, s.Status().Hints.Pending)
				pass(2 * time.Second)
				stop()
				b.change(func(b *books) { b.asked = nil })
				_, stop = startBooks(t, b, tightGuard, store, nil)
				b.change(func(b *books) { require.Empty(t, b.asked, "what was read is done") })
				stop()
			})
		})
	}
}

// A restart while openings wait for cards that cannot be read does not begin the five minutes anew, unless it takes that long.
func TestOpeningsWaitOnOverARestart(t *testing.T) {
	for away, want := range map[time.Duration]time.Duration{time.Minute: time.Minute, openingPatience: openingPatience} {
		t.Run(fmt.Sprint(away), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				paid := b.in(provision.StateActive, 60)
				b.setStates(provision.StatePause, paid...)
				store := NewStore(filepath.Join(dir, "snapshot"))
				s, stop := startBooks(t, b, tightGuard, store, nil)
				b.setStates(provision.StateActive, paid...)
				b.change(func(b *books) { b.cards = errors.New("cards hang") })
				wholePoll(s)
				require.Zero(t, countOf(s.Current(), paid, provision.StateActive))
				pass(3 * time.Minute)
				stop()
				time.Sleep(away)
				s, stop = startBooks(t, b, tightGuard, store, nil)
				pass(want - 20*time.Second)
				require.Zero(t, countOf(s.Current(), paid, provision.StateActive))
				pass(time.Minute)
				require.Len(t, paid, countOf(s.Current(), paid, provision.StateActive))
				stop()
			})
		})
	}
}
