package syncer

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

func TestExpectedHours(t *testing.T) {
	hours := func(s string) DayHours {
		h, err := ParseDayHours(s)
		require.NoError(t, err)
		assert.Equal(t, s, h.String())
		return h
	}
	at := func(day, hour, minute int) time.Time {
		return time.Date(2026, time.March, day, hour, minute, 0, 0, time.UTC)
	}
	for _, tt := range []struct {
		name string
		x    ExpectedChanges
		now  time.Time
		end  time.Time // zero: not expected
	}{
		{"begins", ExpectedChanges{Days: []int{1}, Hours: hours("00:00-06:00")}, at(1, 0, 0), at(1, 6, 0)},
		{"in it", ExpectedChanges{Days: []int{1}, Hours: hours("00:00-06:00")}, at(1, 5, 59), at(1, 6, 0)},
		{"over", ExpectedChanges{Days: []int{1}, Hours: hours("00:00-06:00")}, at(1, 6, 0), time.Time{}},
		{"another day", ExpectedChanges{Days: []int{1}, Hours: hours("00:00-06:00")}, at(2, 1, 0), time.Time{}},
		{"several days", ExpectedChanges{Days: []int{1, 2}, Hours: hours("00:00-06:00")}, at(2, 1, 0), at(2, 6, 0)},
		{"every day", ExpectedChanges{Hours: hours("12:30-13:00")}, at(17, 12, 45), at(17, 13, 0)},
		{"the whole day", ExpectedChanges{Days: []int{1}, Hours: hours("00:00-24:00")}, at(1, 23, 59), at(2, 0, 0)},
		{"before midnight", ExpectedChanges{Days: []int{28}, Hours: hours("22:00-04:00")}, at(28, 23, 0), at(29, 4, 0)},
		{"after midnight", ExpectedChanges{Days: []int{28}, Hours: hours("22:00-04:00")}, at(29, 3, 0), at(29, 4, 0)},
		{"after midnight of another day", ExpectedChanges{Days: []int{28}, Hours: hours("22:00-04:00")}, at(28, 3, 0), time.Time{}},
		{"after the last of the month", ExpectedChanges{Days: []int{31}, Hours: hours("22:00-04:00")}, time.Date(2026, time.April, 1, 3, 0, 0, 0, time.UTC), time.Date(2026, time.April, 1, 4, 0, 0, 0, time.UTC)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			end, in := tt.x.at(tt.now)
			assert.Equal(t, !tt.end.IsZero(), in)
			assert.True(t, tt.end.Equal(end), end)
		})
	}
	for _, bad := range []string{"", "6-7", "06:00", "06:00-06:00", "24:00-06:00", "06:00-24:01", "06:60-07:00", "-1:00-07:00", "06:0-07:00", "06:00-07:00-08:00"} {
		_, err := ParseDayHours(bad)
		assert.Error(t, err, bad)
	}
}

// What is expected passes, and does not use up the limit of the time after it.
func TestExpectedChangesPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits, day := tightGuard, time.Now().AddDate(0, 0, 1)
		limits.Expected = []ExpectedChanges{{Days: []int{day.Day()}, Hours: DayHours{0, 6 * time.Hour}, Changes: []ChangeKind{ChangeBlocked}, Share: 0.6}}
		time.Sleep(time.Until(time.Date(day.Year(), day.Month(), day.Day(), 5, 29, 0, 0, day.Location())))
		b := newBooks(200)
		s, _ := startBooks(t, b, limits, nil, nil)
		pass(time.Minute)
		paused := s.Current().Counts().Paused
		b.setStates(provision.StatePause, b.in(provision.StateActive, 100)...)
		wholePoll(s)
		assert.Equal(t, paused+100, s.Current().Counts().Paused)
		b.setStates(provision.StatePause, b.in(provision.StateActive, 30)...)
		wholePoll(s)
		assert.Equal(t, paused+100, s.Current().Counts().Paused, "65% within the hour")
		pass(31 * time.Minute)
		assert.Equal(t, paused+100, s.Current().Counts().Paused, "now 15% are too many")
		b.setStates(provision.StateActive, b.in(provision.StatePause, 200)[110:]...)
		wholePoll(s)
		assert.Nil(t, s.Status().Held)
		assert.Equal(t, 110, s.Current().Counts().Paused, "but the usual share passes")
	})
}
