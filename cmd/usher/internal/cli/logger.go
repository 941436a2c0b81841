package cli

import (
	"io"
	"log/slog"
)

// NewLogger writes text to a terminal and JSON elsewhere, unless format says
// text or json.
func NewLogger(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if format == "text" || format == "auto" && IsTerminal(w) {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(Beneath(w), opts))
}

// LogLevel reads a level of the configuration; config has checked it.
func LogLevel(s string) slog.Level {
	var l slog.Level
	_ = l.UnmarshalText([]byte(s))
	return l
}
