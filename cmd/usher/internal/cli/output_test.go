package cli

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestAgo(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		at   time.Time
		want string
	}{
		"never":        {time.Time{}, "never"},
		"now":          {now, "0s ago"},
		"past":         {now.Add(-90 * time.Second), "1m30s ago"},
		"the next one": {now.Add(9 * time.Minute), "in 9m0s"},
		"due":          {now.Add(200 * time.Millisecond), "0s ago"},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, tt.want, Ago(tt.at, now)) })
	}
}
