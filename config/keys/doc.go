// Package keys reads a YAML file into structs whose fields declare its keys, and
// reports every mistake at once, each with its place. It knows nothing of what the
// keys are for.
//
// A key has one home: a field, with the tag cfg, of the options of the part that
// uses it. The comment above the field is the sentence of the reference file and of
// the JSON Schema, which are made from the declarations; what follows the field in
// its line is for readers of the code alone. Tags are
//
//	cfg       the key; ",inline": the keys of the field's struct stand beside the others
//	after     the key that it follows, with the fields behind it, if not the one before
//	read      how it is read, where the type does not say it; see Rules.Reader
//	default   what stands for an absent key, written as in the file
//	required  what is wanted, if there is nothing that could stand for it
//	min, max  bounds of a number, a share or a duration; max also of the bytes of text
//	oneof     the words that it may be; a closed set of its own type has a method Words instead
//	most      how many elements a list may have
//	unique    no element of a list may stand there twice
//	alone     words of which one may stand in place of a list, or as its only element
//	empty     why a list may not be empty, to which "leave it out for" and the default are added
//	like      an example in errors, if the default is none
//	restart   a running agent cannot take another value
//	example   what the reference shows in place of the default
//	layout    how the reference shows it
//
// What several keys say together is looked at by Rules.Together, or by a method of
// the part that returns lines of key: reason, which Mapping.Report puts in their place.
package keys
