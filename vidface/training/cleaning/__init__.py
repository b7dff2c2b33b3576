"""Cleaning: cut long-tail identities and images that teach the wrong thing.

The paper's section 4.2 cuts long-tail identities and shows in Figure 5 three kinds of images "which
will lead to bad results": (a) poor quality, (b) wrong label, (c) hard example, the same person in
another domain. It prints no rule. The rule here looks at embeddings under the current model, and
`cut_images` says it in full. Its thresholds hang on the model: the defaults suit SFace, whose faces
of one person have a median cosine of 0.75 to their centre. Look at what is cut before using it
(`Cut.table` lists it).

To tell another domain of a person from a coherent group of a stranger's images, an embedding is not
enough where the model has never seen that domain: `stranger_cosine` is where the line is drawn.
"""
