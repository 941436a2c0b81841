package syncer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ExpectedChanges are hours in which more changes than usual are right.
type ExpectedChanges struct {
	// Days of the month, 1 to 31. Empty: every day.
	Days []int `json:"days,omitempty" cfg:"days" min:"1" max:"31" unique:"true" example:"[1]"`

	// From when to when, by this host's local time. Hours over midnight begin on the day.
	Hours DayHours `json:"hours" cfg:"hours" read:"hours" default:"00:00-24:00" example:"00:00-06:00"`

	// What is expected: removed, moved, blocked, opened, added.
	Changes []ChangeKind `json:"changes" cfg:"changes" unique:"true" default:"[blocked, opened]" empty:"it would expect nothing;"`

	// The limit in that time, where it is greater than the usual one.
	Share float64 `json:"share" cfg:"share" read:"share" max:"1000%" required:"a percentage such as 60%" example:"60%"`
}

// DayHours are hours of a day. To may be on the next one, and is then before From.
type DayHours struct {
	From, To time.Duration // since midnight
}

// ParseDayHours reads hours such as 22:00-06:00.
func ParseDayHours(s string) (DayHours, error) {
	from, to, ok := strings.Cut(s, "-")
	h := DayHours{clockTime(from), clockTime(to)}
	if !ok || h.From < 0 || h.To < 0 || h.From == h.To || h.From == 24*time.Hour {
		return DayHours{}, fmt.Errorf("want hours such as 22:00-06:00, got %q", s)
	}
	return h, nil
}

// clockTime reads 00:00 to 24:00, as time since midnight; negative if it is none.
func clockTime(s string) time.Duration {
	hour, minute, ok := strings.Cut(strings.TrimSpace(s), ":")
	h, err := strconv.ParseUint(hour, 10, 8)
	m, err2 := strconv.ParseUint(minute, 10, 8)
	if !ok || err != nil || err2 != nil || len(minute) != 2 || m > 59 || h > 24 || h == 24 && m > 0 {
		return -1
	}
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
}

// String returns the form that ParseDayHours reads.
func (h DayHours) String() string {
	clock := func(d time.Duration) string { return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60) }
	return clock(h.From) + "-" + clock(h.To)
}

// MarshalText implements encoding.TextMarshaler.
func (h DayHours) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *DayHours) UnmarshalText(b []byte) (err error) {
	*h, err = ParseDayHours(string(b))
	return err
}

// at reports whether a time is in the hours, and when they end.
func (x *ExpectedChanges) at(now time.Time) (end time.Time, in bool) {
	year, month, day := now.Date()
	for _, begins := range []int{day, day - 1} { // hours over midnight may have begun yesterday
		clock := func(day int, d time.Duration) time.Time { // by the clock on the wall, whatever summer time does
			return time.Date(year, month, day, int(d.Hours()), int(d.Minutes())%60, 0, 0, now.Location())
		}
		from, to := clock(begins, x.Hours.From), clock(begins, x.Hours.To)
		if x.Hours.To < x.Hours.From {
			to = clock(begins+1, x.Hours.To)
		}
		if (len(x.Days) == 0 || slices.Contains(x.Days, from.Day())) && !now.Before(from) && now.Before(to) {
			return to, true
		}
	}
	return time.Time{}, false
}
