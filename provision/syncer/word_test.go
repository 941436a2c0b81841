package syncer

import (
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// Which rows are the ERP's own word, and as of when: those of a whole fetch that passed, as of its begin; of one that was held and
// accepted, as of then; never those of a held, failed or stored one, nor what states change about them.
func TestWhoseWordTheRowsAre(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	ip := provisiontest.IP(99)
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: slow(5*time.Second, says(provisiontest.Input(100)))}
		s := New(Options{PollInterval: time.Minute, Guard: tightGuard}, erp, NewStore(path), nil, provisiontest.Quiet())
		stop := runSyncer(t, s)
		began := time.Now()
		pass(10 * time.Second)
		first := s.Current()
		require.Equal(t, began, first.AcceptedAt(), "what changed while it ran may be missing")
		row, ok := first.AcceptedRow(ip)
		require.True(t, ok)
		require.Equal(t, provision.Row{Line: first.ByIP(ip), Source: provision.SourceDirect, At: began}, row)

		s.Override(1099, provision.StatePause, time.Now())
		require.NotSame(t, first, s.Current())
		require.Equal(t, began, s.Current().AcceptedAt(), "a state is no fetch")

		erp.set(fails(errors.New("down")))
		pass(time.Minute)
		erp.set(says(without(50)))
		pass(time.Minute)
		require.NotNil(t, s.GuardStatus().Held)
		require.Equal(t, began, s.Current().AcceptedAt())
		pass(10 * time.Second)
		held := s.GuardStatus().Held.FetchedAt
		require.NoError(t, accept(s))
		require.Equal(t, time.Now(), s.Current().AcceptedAt())
		require.Equal(t, held.UTC(), s.Current().FetchedAt().UTC(), "its age stays that of the fetch")
		rows := 0
		for range s.Current().AcceptedRows() {
			rows++
		}
		require.Equal(t, 50, rows)
		stop()
	})
	again, err := NewStore(path).Load()
	require.NoError(t, err)
	require.Equal(t, []any{provision.SourceStored, provision.SourceDirect}, []any{again.Source(), again.Origin()})
	require.Zero(t, again.AcceptedAt())
	_, ok := again.AcceptedRow(ip)
	require.False(t, ok)
	require.NoError(t, NewStore(path).Save(again))
	again, err = NewStore(path).Load()
	require.NoError(t, err)
	require.Equal(t, provision.SourceDirect, again.Origin(), "also where a stored one was stored again")
}
