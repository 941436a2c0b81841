package long

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// quiet keeps what is tried here out of the list of a long run.
type quiet struct{ testing.TB }

func (quiet) Logf(string, ...any) {}

func TestTimes(t *testing.T) {
	t.Setenv("USHER_LONG", "")
	require.Equal(t, 3, Times(quiet{t}, 3, 300))
	t.Setenv("USHER_LONG", "0")
	require.Equal(t, 3, Times(quiet{t}, 3, 300))
	t.Setenv("USHER_LONG", "1")
	require.Equal(t, 300, Times(quiet{t}, 3, 300))
}
