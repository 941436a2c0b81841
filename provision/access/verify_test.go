package access

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestVerifyTellsWhatItRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := ACL{SetStopped: keys("192.0.2.1"), SetPaused: keys("192.0.2.2")}
		e := startEnforcer(t, Options{VerifyInterval: time.Hour}, ACL{}, wanted(t, want))
		before, _ := e.kernel.used()
		v, err := e.Verify(t.Context())
		require.NoError(t, err)
		assert.True(t, v.Equal())
		assert.Empty(t, v.What)
		assert.Equal(t, SetCounts{SetStopped: 1, SetPaused: 1}, v.Elements)
		observed, _ := e.kernel.used()
		assert.Equal(t, before+1, observed, "read back although nobody is known to have written")

		// Somebody changes elements and nothing tells: only a reading finds it.
		e.kernel.do(func() {
			e.kernel.sets = newKernelModel(ACL{SetStopped: keys("192.0.2.1"), SetGuests: keys("192.0.2.3")})
		})
		v, err = e.Verify(t.Context())
		require.NoError(t, err)
		assert.False(t, v.Equal())
		assert.Equal(t, []uint64{1, 1}, []uint64{v.Extra, v.Missing})
		assert.ElementsMatch(t, []string{"missing in paused: 192.0.2.2", "extra in guests: 192.0.2.3"}, v.What)
		assert.Equal(t, want.Counts(), v.Elements)
		v, err = e.Verify(t.Context())
		require.NoError(t, err)
		assert.True(t, v.Equal(), "it is repaired")

		e.snap.Store(nil)
		_, err = e.Verify(t.Context())
		require.ErrorIs(t, err, ErrNoSnapshot)
		_, err = e.Want()
		require.ErrorIs(t, err, ErrNoSnapshot)
	})
}
