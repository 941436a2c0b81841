package agent

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTeardownTakesEveryStep(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name  string
		steps map[string]string // what becomes of a, b, c and d; others are well
		want  []string          // in the error
		took  time.Duration
	}{
		{name: "all is well"},
		{name: "one fails", steps: map[string]string{"c": "fails"}, want: []string{"c: broken"}},
		{name: "two fail", steps: map[string]string{"a": "fails", "d": "fails"}, want: []string{"d: broken\na: broken"}},
		{name: "one hangs", steps: map[string]string{"d": "hangs"}, want: []string{"d: not closed within 1.2s"}, took: 1200 * time.Millisecond},
		{name: "one hangs and one fails", steps: map[string]string{"c": "hangs", "b": "fails"},
			want: []string{"c: not closed within 1.4s", "b: broken"}, took: 1400 * time.Millisecond},
		{name: "all hang", steps: map[string]string{"a": "hangs", "b": "hangs", "c": "hangs", "d": "hangs"},
			want: []string{"d: not closed within 1.2s", "c: not closed within 200ms", "b: not closed within 200ms", "a: not closed within 200ms"},
			took: 1800 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var td teardown
				var mu sync.Mutex // guards taken, against a step that hangs
				var taken []string
				hung := make(chan struct{})
				for _, name := range []string{"a", "b", "c", "d"} {
					td.push(name, func() error {
						mu.Lock()
						taken = append(taken, name)
						mu.Unlock()
						switch c.steps[name] {
						case "fails":
							return broken
						case "hangs":
							<-hung
						}
						return nil
					})
				}
				began := time.Now()
				err := td.run(1800 * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				assert.Equal(t, []string{"d", "c", "b", "a"}, taken, "newest first, none left out")
				assert.Equal(t, c.took, time.Since(began))
				if c.want == nil {
					require.NoError(t, err)
				}
				for _, want := range c.want {
					require.ErrorContains(t, err, want)
				}
				assert.Equal(t, err, td.run(time.Hour), "once and for all")
				assert.Len(t, taken, 4)
				close(hung)
			})
		})
	}
}

func TestTeardownOfNothing(t *testing.T) {
	var td teardown
	require.NoError(t, td.run(time.Second))
}
