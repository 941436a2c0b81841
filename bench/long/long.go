// Package long is the switch between "make test" and "make test-long": tests
// ask it how often to do what may be done any number of times.
package long

import (
	"os"
	"testing"
)

// Times returns how many rounds, seeds or steps of something a test shall make:
// short ones in "make test", long ones where USHER_LONG is 1. It tells the
// log of a long run, which ends with a list of what ran.
func Times(t testing.TB, short, long int) int {
	t.Helper()
	if os.Getenv("USHER_LONG") != "1" {
		return short
	}
	t.Logf("long: %d times in place of %d", long, short)
	return long
}
