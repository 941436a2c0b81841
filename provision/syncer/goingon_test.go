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

// A customer whom a hint named and whose card could not be read, or was being read, is read after a restart, for as long as the hint counts.
func TestHintsThatWaitOutliveARestart(t *testing.T) {
	refused := func(b *books) { b.cards = errors.New("refused") }
	hangs := func(b *books) { b.hangs = true }
	for name, tt := range map[string]struct {
		away  time.Duration
		read  bool
		cards func(b *books)
	}{
		"soon": {time.Minute, true, refused}, "too late": {hintPatience, false, refused},
		"hangs": {time.Minute, true, hangs}, "hangs, too late": {hintPatience, false, hangs},
		"nothing was read yet": {time.Minute, true, func(b *books) { b.down = errors.New("refused"); b.hangs = true }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(50)
				store := NewStore(filepath.Join(dir, "snapshot"))
				b.change(tt.cards)
				s, stop := startBooks(t, b, tightGuard, store, nil)
				s.Hint(1005)
				pass(10 * time.Second)
				stop()
				b.change(func(b *books) { b.cards, b.hangs, b.down, b.asked = nil, false, nil, nil })
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

// Where the clock is behind after a restart, for the host keeps no time while it is off, a hint that waits is read all the same, for an hour
// from then on. An opening begins to wait anew.
func TestWhatWaitsOutlivesAClockThatIsBehind(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	k := newKnown()
	k.hints = map[provision.SubscriberID]time.Time{1005: now.Add(-time.Minute)}
	k.since = map[provision.SubscriberID]time.Time{1006: now.Add(-time.Minute)}
	body, err := k.encode()
	require.NoError(t, err)
	for name, at := range map[string]time.Time{"1970": time.Unix(0, 0), "a day": now.Add(-24 * time.Hour), "some minutes": now.Add(-5 * time.Minute)} {
		t.Run(name, func(t *testing.T) {
			again, err := decodeKnown(hourVersion, body, at)
			require.NoError(t, err)
			require.Equal(t, map[provision.SubscriberID]time.Time{1005: at}, again.hints)
			require.Empty(t, again.since)
		})
	}
	again, err := decodeKnown(hourVersion, body, now.Add(hintPatience))
	require.NoError(t, err)
	require.Empty(t, again.hints)
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

// The five minutes of before a restart are those of that list: where it was right in between, a later list begins anew, so that cards
// are asked for before anybody is let in.
func TestOpeningsThatWereTakenBackDoNotWaitOn(t *testing.T) {
	for name, tt := range map[string]struct {
		right, want time.Duration
		between     func(b *books)
	}{
		"right for long": {2 * time.Hour, openingPatience, nil},
		"right shortly":  {30 * time.Second, openingPatience, nil},
		"not told":       {0, 3 * time.Minute, func(b *books) { b.keeps = time.Second }}, // takes nothing back
		"ERP down":       {4 * time.Minute, openingPatience, func(b *books) { b.down = errors.New("refused") }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				owe := b.in(provision.StateActive, 60)
				b.setStates(provision.StatePause, owe...)
				empty := func(in *provision.Input) { paint(in, provision.StateActive, owe...) }
				store := NewStore(filepath.Join(dir, "snapshot"))
				s, stop := startBooks(t, b, tightGuard, store, nil)
				b.setSpoil(empty)
				b.change(func(b *books) { b.cards = errors.New("cards hang") })
				wholePoll(s)
				pass(time.Minute)
				require.NotNil(t, s.Status().Held)
				stop()
				time.Sleep(time.Minute)

				if b.setSpoil(nil); tt.between != nil {
					b.setSpoil(empty)
					b.change(tt.between)
				}
				s, stop = startBooks(t, b, tightGuard, store, nil)
				pass(tt.right)
				require.Nil(t, s.Status().Held)
				b.setSpoil(empty)
				b.change(func(b *books) { b.keeps, b.down = 0, nil })
				wholePoll(s)
				require.NotNil(t, s.Status().Held)
				require.WithinDuration(t, time.Now().Add(tt.want), s.Status().Held.Openings.OpensAt, 10*time.Second)
				pass(tt.want - time.Minute/2)
				require.Len(t, owe, countOf(s.Current(), owe, provision.StatePause))
				pass(2 * time.Minute)
				require.Len(t, owe, countOf(s.Current(), owe, provision.StateActive))
				stop()
			})
		})
	}
}
