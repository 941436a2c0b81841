package syncer

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// What an operator rejected is held against the first answer too, where the snapshot of before is damaged or lost.
func TestRejectedOnesOutliveTheSnapshot(t *testing.T) {
	bogus := func(in *provision.Input) {
		for i := range 60 {
			id := provision.SubscriberID(9000 + i)
			in.Lines = append(in.Lines, provision.Line{Subscriber: id, Addresses: provision.Hosts4(provisiontest.IP(int(id)))})
			in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: id, State: provision.StateActive})
		}
	}
	for kind, tt := range map[ChangeKind]struct {
		spoil func(in *provision.Input)
		held  int
		kept  func(t *testing.T, s *provision.Snapshot)
	}{
		ChangeBlocked: {func(in *provision.Input) { paint(in, provision.StateStop, first(100)...) }, 100, func(t *testing.T, s *provision.Snapshot) {
			assert.Zero(t, countOf(s, first(100), provision.StateStop))
		}},
		ChangeOpened: {func(in *provision.Input) {
			for i := range in.Subscribers {
				in.Subscribers[i].State = provision.StateActive
			}
		}, 80, func(t *testing.T, s *provision.Snapshot) {
			assert.Equal(t, 80, s.Counts().Paused, "how they were blocked is lost")
		}},
		ChangeAdded: {bogus, 60, func(t *testing.T, s *provision.Snapshot) { assert.Equal(t, 200, s.Len()) }},
	} {
		for name, lose := range map[string]func(string) error{
			"damaged": func(file string) error { return os.WriteFile(file, []byte("usher snapshot 3\nrubbish\n"), 0o600) },
			"lost":    os.Remove,
		} {
			t.Run(string(kind)+" "+name, func(t *testing.T) {
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					b := newBooks(200)
					b.setStates(provision.StateActive, first(100)...)
					if kind == ChangeOpened {
						b.change(func(b *books) {
							for i := range b.truth.Subscribers {
								b.truth.Subscribers[i].State = provision.StateActive
							}
							paint(&b.truth, provision.StatePause, first(80)...)
						})
					}
					store := NewStore(filepath.Join(dir, "snapshot"))
					run := func(want bool) (s *Syncer, stop func()) {
						s = New(Options{PollInterval: time.Minute, RefreshInterval: 5 * time.Minute, Guard: tightGuard}, b, store, nil, provisiontest.Quiet())
						err := s.LoadStored()
						require.Equal(t, want, err == nil, "%v", err)
						stop = runSyncer(t, s)
						pass(time.Second)
						return s, stop
					}
					s, stop := run(true)
					b.change(func(b *books) { b.cards = assert.AnError }) // so openings wait
					b.setSpoil(tt.spoil)
					wholePoll(s)
					require.NotNil(t, s.Status().Held)
					require.NoError(t, reject(s))
					pass(10 * time.Second)
					stop()
					require.NoError(t, lose(filepath.Join(dir, "snapshot")))

					s, stop = run(name == "lost")
					held := s.Status().Held
					require.NotNil(t, held)
					assert.True(t, held.Rejected)
					assert.Len(t, s.GuardStatus().Changes, tt.held)
					assert.Len(t, s.GuardStatus().Rejected, tt.held)
					tt.kept(t, s.Current())
					pass(6 * time.Minute)
					tt.kept(t, s.Current())
					stop()
					s, stop = run(true)
					assert.Len(t, s.GuardStatus().Rejected, tt.held, "and over the next restart")
					tt.kept(t, s.Current())

					b.setSpoil(nil)
					wholePoll(s)
					assert.Nil(t, s.Status().Held)
					assert.Empty(t, s.GuardStatus().Rejected, "taken back")
					assert.Equal(t, b.truthNow().Fingerprint(), s.Current().Fingerprint())
					stop()
				})
			})
		}
	}
}

// Who was not let in because of the own card stays out, and the hour goes on.
func TestContradictedOnesAndTheHourOutliveTheSnapshot(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(200)
		owes := b.in(provision.StateActive, 80)
		b.setStates(provision.StateStop, owes...)
		store := NewStore(filepath.Join(dir, "snapshot"))
		s, stop := startBooks(t, b, tightGuard, store, nil)
		b.setSpoil(func(in *provision.Input) { paint(in, provision.StateActive, owes...) })
		pass(5 * time.Minute)
		b.setSpoil(func(in *provision.Input) {
			paint(in, provision.StateActive, owes...)
			paint(in, provision.StatePause, 1190, 1191)
		})
		pass(time.Minute)
		require.Len(t, s.contradicted, 80)
		require.Len(t, s.passed[ChangeBlocked], 2)
		stop()
		require.NoError(t, os.Remove(filepath.Join(dir, "snapshot")))
		b.change(func(b *books) { b.cards = assert.AnError })
		s, stop = startBooks(t, b, tightGuard, store, nil)
		pass(6 * time.Minute)
		require.Len(t, s.passed[ChangeBlocked], 2)
		assert.Equal(t, 80, countOf(s.Current(), owes, provision.StatePause))
		b.change(func(b *books) { b.cards = nil })
		b.setStates(provision.StateActive, owes...)
		pass(time.Minute)
		assert.Equal(t, 80, countOf(s.Current(), owes, provision.StateActive), "each by the own card")
		stop()
	})
}
