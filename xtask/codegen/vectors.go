package main

func writeVectors(directory string) {}
